"""What all jobs on Spark share."""
