"""Where layers were: files of users may still import them from here (`drop_path`)."""
