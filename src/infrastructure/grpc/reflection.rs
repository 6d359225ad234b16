//! Reflection: the schema of all that clients can call, for tools that ask for it, in both versions of that protocol.

use tonic::service::Routes;
use tonic_reflection::server::Builder;
use tracing::error;

use super::wire::DESCRIPTORS;

/// What is listed: not what members say to one another.
const SERVICES: [&str; 5] = [
    "graft.v1.Client",
    "graft.v1.Admin",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

fn builder() -> Builder<'static> {
    let all = Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET);
    SERVICES.into_iter().fold(all, Builder::with_service_name)
}

/// Adds it to what is served.
pub(super) fn add_to(routes: Routes) -> Routes {
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            error!(%error, "the schema that was compiled in cannot be read: there is no reflection");
            routes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_that_is_compiled_in_can_be_served() {
        builder().build_v1().expect("a schema");
        builder().build_v1alpha().expect("a schema");
    }
}
