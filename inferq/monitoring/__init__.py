"""What an operator looks at: pages and numbers."""
