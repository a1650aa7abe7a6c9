"""Systems that were built by hand once, rebuilt on the gate: their whole stories over HTTP."""
