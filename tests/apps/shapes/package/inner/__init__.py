"""A package inside a package."""
