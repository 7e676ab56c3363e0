"""Files of a teacher's distributions in other people's trainers, a module each."""
