"""The embedded realm: file service, authentication service and store of one server."""
