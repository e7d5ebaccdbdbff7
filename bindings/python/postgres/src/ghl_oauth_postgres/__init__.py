"""Contains the native library of ghl_oauth with the PostgreSQL store. ``ghl_oauth`` finds it."""
