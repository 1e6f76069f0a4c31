"""The process that runs engines: one job at a time, told what to do and listened to by the broker alone."""
