"""What the lab's networks can do, by ground truth: every number on their cards comes from here."""
