"""One method of every kind, offered through entry points; bdbench itself is not changed."""
