"""Areas of any size: plan, tasks with keys, manifest, executors, tiles and their catalog."""
