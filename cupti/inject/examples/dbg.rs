use stallscope_cupti_inject::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let image = std::fs::read(&a[2]).unwrap();
    let prepare = |_: &std::os::fd::OwnedFd| Ok(());
    let p =
        Payload { image: &image, ring_bytes: 65536, prepare: &prepare, cupti: None, flags: 0, unload: true };
    let mut s = |s: Step| eprintln!("{s:?}");
    for _ in 0..a[3].parse().unwrap() {
        let r = inject(a[1].parse().unwrap(), &p, Options { observe: Some(&mut s), ..Options::default() });
        match r {
            Ok(r) => println!("{r:?}"),
            Err(e) => println!("{e}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
