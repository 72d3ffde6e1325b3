"""The demo's tabs, a function each: which components there are and which event runs what."""
