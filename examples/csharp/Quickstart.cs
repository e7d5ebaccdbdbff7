// From a consent link to API requests in C#, with P/Invoke; see ../README.md.
//
//     mcs -r:System.Json Quickstart.cs
//     export LD_LIBRARY_PATH=../../target/release PORT=8089
//     mono Quickstart.exe "$(cat config.json)"

using System;
using System.Collections.Generic;
using System.Json;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

static class Native
{
    // The loader finds libghl_oauth.so, libghl_oauth.dylib or ghl_oauth.dll.
    const string Library = "ghl_oauth";

    public delegate void EventCallback(IntPtr json, IntPtr context);

    [DllImport(Library)]
    public static extern int ghl_client_new(byte[] config, out IntPtr client, out IntPtr json);
    [DllImport(Library)]
    public static extern void ghl_client_free(IntPtr client);
}
