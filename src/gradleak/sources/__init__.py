"""From words, as a command line or a plan says them, to models, pictures, attacks and defenses."""
