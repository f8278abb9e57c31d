"""`/api/public`: routes and wire models. Each route reads, calls one use case of `services`, and renders."""
