"""The tabs of the page: what is shown, and what happens when something is pressed."""
