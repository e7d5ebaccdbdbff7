#include <stdio.h>
#include "ghl_oauth.h"

int main(void) {
    ghl_client *client;
    const char *config = "{\"clientId\": \"a-1\", \"clientSecret\": \"s\"}";
    int32_t status = ghl_client_new(config, &client, NULL);
    ghl_client_free(client);
    puts(ghl_version());
    return status;
}
