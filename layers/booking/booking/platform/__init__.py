"""What every capability shares: settings, connections, the HTTP edge, problems. Imports no capability."""
