"""What each command does, between its arguments and the library; one module a command."""
