"""What a study has found, as documents, pictures and files for other tools."""
