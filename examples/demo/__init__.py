"""The one-minute demo: draw sample pictures, index them, search, name the page to look at."""
