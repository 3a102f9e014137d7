//! Golden texts of mistakes in settings of live pools: `live/NAME.ron` is refused with
//! `live/NAME.txt`.

use super::mistakes::refused;

macro_rules! golden {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            let text = include_str!(concat!("live/", stringify!($name), ".ron"));
            let want = include_str!(concat!("live/", stringify!($name), ".txt"));
            refused(stringify!($name), text, want.trim_end());
        })*
    };
}

golden!(
    administration,
    administration_nowhere,
    administration_by_no_path,
    administration_by_a_socket,
    checks,
    availability,
    discovery_and_scaling,
    etcd,
    registries,
    metrics,
    send_proxy,
    sources,
    user
);
