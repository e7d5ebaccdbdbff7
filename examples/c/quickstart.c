/*
 * From a consent link to valid tokens, with the typed structs of bindings/c.
 *
 *     cc examples/c/quickstart.c bindings/c/ghl_oauth_typed.c -Iinclude -Ibindings/c \
 *         -Ltarget/release -Wl,-rpath,$PWD/target/release -lghl_oauth
 *
 * The configuration is JSON on the command line. The emulator prints a suitable one: cargo run -p
 * ghl-oauth-emulator. Open the link, consent, and paste the URL to which the browser is redirected.
 */
#include <stdio.h>
#include <string.h>

#include "ghl_oauth_typed.h"

static int failed(const char *what, ghl_error *error) {
    fprintf(stderr, "%s: %s: %s\n", what, ghl_status_name(error->status), error->message);
    if (error->help != NULL) {
        fprintf(stderr, "what to do: %s\n", error->help);
    }
    ghl_typed_error_clear(error);
    return 1;
}

/* Sends a person to the consent page, and stores the token of the consent. */
static int32_t connect(ghl_client *client, ghl_token_info *info, ghl_error *error) {
    ghl_authorization_options options = {.scopes = "oauth.readonly oauth.write locations.readonly"};
    ghl_authorization_link link;
    int32_t status = ghl_typed_authorization_url(client, &options, &link, error);
    if (status != GHL_OK) {
        return status;
    }
    printf("Open this link: %s\nPaste the URL to which the browser was redirected: ", link.url);
    fflush(stdout);
    char redirect_url[4096];
    if (fgets(redirect_url, sizeof redirect_url, stdin) == NULL) {
        redirect_url[0] = '\0';
    }
    redirect_url[strcspn(redirect_url, "\r\n")] = '\0';
    ghl_completion_options session = {.state = link.state};
    status = ghl_typed_authorization_complete(client, redirect_url, &session, info, error);
    ghl_typed_link_clear(&link);
    return status;
}

/* Gets a token for each location of the company: by a mint first, from memory afterwards. */
static int32_t visit_locations(ghl_client *client, const char *company_id, ghl_error *error) {
    /* Locations without the app have no token. */
    ghl_location_query query = {
        .company_id = company_id, .page_size = 10, .is_installed = GHL_ONLY_TRUE};
    ghl_location_page page;
    int32_t status = GHL_OK;
    char next[512];
    do {
        status = ghl_typed_installed_locations(client, &query, &page, error);
        if (status != GHL_OK) {
            return status;
        }
        for (size_t i = 0; i < page.count; i++) {
            char *token;
            ghl_error failure;
            if (ghl_typed_access_token(client, page.items[i].id, &token, &failure) == GHL_OK) {
                printf("%s  %.12s...  %s\n", page.items[i].id, token, page.items[i].name);
            } else { /* for example a paused one: continue with the others */
                fprintf(stderr, "%s: %s\n", page.items[i].id, failure.message);
                ghl_typed_error_clear(&failure);
            }
            ghl_string_free(token);
        }
        query.page_token = NULL;
        if (page.next_page_token != NULL) {
            snprintf(next, sizeof next, "%s", page.next_page_token);
            query.page_token = next;
        }
        ghl_typed_location_page_clear(&page);
    } while (query.page_token != NULL);
    return GHL_OK;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr,
                "usage: %s '{\"clientId\": \"...\", \"clientSecret\": \"...\", \"redirectUri\": "
                "\"...\"}'\n",
                argv[0]);
        return 2;
    }
    ghl_client *client;
    char *document;
    ghl_error error;
    int32_t status = ghl_client_new(argv[1], &client, &document);
    if (status != GHL_OK) {
        ghl_typed_error(status, document, &error);
        return failed("the configuration", &error);
    }
    ghl_string_free(document);

    int code = 0;
    ghl_token_info company;
    if (connect(client, &company, &error) != GHL_OK) {
        code = failed("the consent", &error);
    } else {
        printf("connected: %s %s\n", company.user_type, company.resource_id);
        if (visit_locations(client, company.resource_id, &error) != GHL_OK) {
            code = failed("the locations", &error);
        }
        ghl_typed_token_info_clear(&company);
    }
    ghl_client_free(client);
    return code;
}
