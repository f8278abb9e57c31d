"""What goes over the wire under /api/public: bodies of requests (`…In`), replies (`…Out`), and the bounds of fields."""
