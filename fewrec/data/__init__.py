"""Rating tables and catalogs: cards, fetching, one small reader per file format, a user's own files."""
