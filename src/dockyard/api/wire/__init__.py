"""What goes over the wire under /api/public: request bodies (`…In`), replies (`…Out`), and the bounds of their fields."""
