"""The door of the page: everything that visitors send is looked at here, once."""
