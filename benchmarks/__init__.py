"""What a request costs: codecs alone, the whole server beside its peers, idle connections."""
