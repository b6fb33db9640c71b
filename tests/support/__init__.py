"""What several tests share: phantoms with a known truth, a datastore of them, a server, its clients."""
