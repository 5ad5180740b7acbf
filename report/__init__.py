"""What a person looks at: tables, published numbers, pictures, the report page."""
