"""What an update gives away, said before any attack is run."""
