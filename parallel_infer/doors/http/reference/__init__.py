"""What the HTTP door says of itself: GET /openapi.json, and GET /docs, a page made from it."""
