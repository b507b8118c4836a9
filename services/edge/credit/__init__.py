"""What this edge does with its readers' credit: sets it aside, spends it, settles."""
