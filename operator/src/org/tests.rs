//! Manifests in, objects and status out; no mocks.
