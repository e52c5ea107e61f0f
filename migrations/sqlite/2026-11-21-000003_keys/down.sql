DROP TABLE prekeys;
DROP TABLE key_counters;
