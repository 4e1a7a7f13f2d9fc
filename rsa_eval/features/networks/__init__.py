"""Take features from networks of other libraries, and from a user's own."""
