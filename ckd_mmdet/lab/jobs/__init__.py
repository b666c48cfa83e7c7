"""What the commands share that train in processes of their own: the processes, their logs, one bar over all."""
