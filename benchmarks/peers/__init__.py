"""The same work on other servers, compared with ours."""
