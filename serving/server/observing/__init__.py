"""What can be seen of a server from outside: names of requests, an access log, traces, drift."""
