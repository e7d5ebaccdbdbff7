// From a consent link to API requests in Go, with cgo; see ../README.md.
//
//	export CGO_CFLAGS=-I$PWD/../../include CGO_LDFLAGS=-L$PWD/../../target/release
//	LD_LIBRARY_PATH=$PWD/../../target/release PORT=8089 go run . "$(cat config.json)"
package main

/*
#cgo LDFLAGS: -lghl_oauth
#include <stdlib.h>
#include "ghl_oauth.h"

typedef int32_t (*function)(ghl_client *, const char *, char **);
static inline int32_t call(function f, ghl_client *client, const char *json, char **out) {
	return f(client, json, out);
}
void goEvent(char *json, void *context);
*/
import "C"

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"
	"unsafe"
)

type object = map[string]any

type Error struct {
	Status, Message, Help string
	Retryable             bool
	Sent                  any // true, false, or nil if it is unknown
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s; %s", e.Status, e.Message, e.Help) }

// take copies a string that the library returned, then wipes and frees it.
func take(status C.int32_t, text *C.char) ([]byte, error) {
	defer C.ghl_string_free(text)
	document, failed := []byte(C.GoString(text)), struct{ Error Error }{}
	if status == C.GHL_OK {
		return document, nil
	}
	json.Unmarshal(document, &failed)
	return nil, &failed.Error
}

// call calls a function that takes and returns JSON, and ends it when the context ends.
func call(ctx context.Context, client *C.ghl_client, f C.function, params object) ([]byte, error) {
	params["callId"] = fmt.Sprintf("%p", params)
	document, _ := json.Marshal(params)
	text, id := C.CString(string(document)), C.CString(params["callId"].(string))
	defer C.free(unsafe.Pointer(text))
	defer C.free(unsafe.Pointer(id))
	var out *C.char
	done := make(chan C.int32_t)
	go func() { done <- C.call(f, client, text, &out) }()
	for {
		select {
		case status := <-done:
			return take(status, out)
		case <-ctx.Done(): // repeated, because a cancel has no effect before the call begins
			C.ghl_call_cancel(client, id)
			time.Sleep(20 * time.Millisecond)
		}
	}
}

//export goEvent
func goEvent(text *C.char, _ unsafe.Pointer) {
	fmt.Println("event:", C.GoString(text))
}

func must(answer []byte, err error) (result object) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.Unmarshal(answer, &result)
	return result
}

func main() {
	var client, out, token = (*C.ghl_client)(nil), (*C.char)(nil), (*C.char)(nil)
	must(take(C.ghl_client_new(C.CString(os.Args[1]), &client, &out), out))
	defer C.ghl_client_free(client)
	C.ghl_client_on_event(client, C.ghl_event_callback(C.goEvent), nil)
	ctx := context.Background()
	scopes := object{"scopes": []string{"oauth.readonly", "oauth.write", "locations.readonly"}}
	link := must(call(ctx, client, C.function(C.ghl_authorization_url), scopes))
	fmt.Printf("Open this link: %s\nPaste the URL to which the browser was redirected: ", link["url"])
	redirect := object{"redirectUrl": new(string), "state": link["state"]}
	fmt.Scanln(redirect["redirectUrl"])
	company := must(call(ctx, client, C.function(C.ghl_authorization_complete), redirect))
	fmt.Println("connected:", company["userType"], company["resourceId"])
	owner := C.CString(company["resourceId"].(string))
	must(take(C.ghl_access_token(client, owner, &token, &out), out))
	secret, _ := take(C.GHL_OK, token)
	fmt.Println("token of", len(secret), "characters")
	query := object{"companyId": company["resourceId"], "isInstalled": true}
	page := must(call(ctx, client, C.function(C.ghl_oauth_installed_locations), query))
	id := page["items"].([]any)[0].(object)["_id"].(string)
	request := object{"method": "GET", "path": "/locations/" + id, "resourceId": id}
	response := must(call(ctx, client, C.function(C.ghl_request), request))
	fmt.Printf("%s: HTTP %v\n", id, response["status"])

	unknown := C.CString("unknown")
	_, err := take(C.ghl_access_token(client, unknown, &token, &out), out)
	failed := err.(*Error)
	fmt.Printf("error: %s, retryable: %t, sent: %v\n", failed.Status, failed.Retryable, failed.Sent)
	brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	listen := object{"port": json.Number(os.Getenv("PORT"))}
	_, err = call(brief, client, C.function(C.ghl_authorization_listen), listen)
	fmt.Println("cancelled:", err.(*Error).Status)
}
