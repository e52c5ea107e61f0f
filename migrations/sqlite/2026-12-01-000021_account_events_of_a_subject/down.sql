DROP INDEX account_events_subject;
