"""kopf handlers: an event in, a key into the queue. No decisions here."""
