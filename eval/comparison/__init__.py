"""Scripts that compare rows by what they answered, from committed files alone."""
