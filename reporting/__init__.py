"""What the report is made of: artifacts found, tables computed, plots drawn, pages rendered."""
