-- The signing key's signature over the identity key, for the suite `olm`; NULL for devices from before 0.2.
ALTER TABLE devices ADD COLUMN identity_signature BYTEA;
