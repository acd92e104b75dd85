"""Who may ask what of the server: tokens, rights, and the pages that browsers may be on."""
