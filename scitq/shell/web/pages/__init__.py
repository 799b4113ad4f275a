"""The pages: each module has its `ROUTES`, functions that read a request and give a response."""
