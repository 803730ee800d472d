"""The command line: one module per subcommand of `attnzoo`, each also a script; no library code."""
