use std::io::Write as _;

use super::*;

/// A tar, header by header.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn header(mut self, name: &str, kind: u8, link: &str, size: u64) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(EntryType::new(kind));
        header.set_size(size);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.header(name, b'0', "", bytes.len() as u64).bytes(bytes)
    }

    fn extended(self, kind: u8, text: &[u8]) -> Self {
        self.header("x", kind, "", text.len() as u64).bytes(text)
    }

    fn read(self) -> Result<Entries, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&self.0).unwrap();
        Entries::read(&file, self.0.len() as u64).map_err(|fault| fault.to_string())
    }

    #[track_caller]
    fn refused(self, reason: &str) {
        let fault = self.read().unwrap_err();
        assert!(fault.contains(reason), "{fault}");
    }
}

fn record(text: &str) -> Vec<u8> {
    let length =
        (text.len()..text.len() + 9).find(|length| length.to_string().len() + text.len() + 2 == *length).unwrap();
    format!("{length} {text}\n").into_bytes()
}

#[test]
fn files_are_where_they_are() {
    let tar = Tar::default().header("./a/", b'5', "", 0).file("./a/b", b"hello").file("c", &[7; 600]);
    let entries = tar.header("a", b'5', "", 0).bytes(&[0; 1024]).file("after the end", b"x").read().unwrap();
    assert_eq!(entries.file("a/b"), Some(Span { offset: 1024, size: 5 }));
    assert_eq!(entries.file("c"), Some(Span { offset: 2048, size: 600 }));
    assert_eq!(entries.file("a"), None, "a directory");
    assert_eq!(entries.file("after the end"), None);
    assert!(Tar::default().read().unwrap().0.is_empty());
}

#[test]
fn long_names_and_large_sizes_are_stated_ahead() {
    let long = "d/".repeat(100) + "f";
    let gnu = [long.as_bytes(), b"\0"].concat();
    assert!(Tar::default().extended(b'L', &gnu).file("d", b"1").read().unwrap().file(&long).is_some());
    let pax =
        [record(&format!("path={long}")), record("mtime=1.5"), record("size=3"), record("comment=a\nb=c")].concat();
    let entries = Tar::default().extended(b'x', &pax).header("d", b'0', "", 0).bytes(b"123").file("e", b"2");
    let entries = entries.read().unwrap();
    assert_eq!(entries.file(&long).map(|span| span.size), Some(3), "the header's own size is 0, as Go writes it");
    assert!(entries.file("e").is_some());
    let global = [record("path=evil"), record("comment=0123")].concat();
    assert!(Tar::default().extended(b'g', &global).file("f", b"1").read().unwrap().file("f").is_some());
    let limit = vec![b'0'; usize::try_from(MAX_EXTENDED).unwrap()];
    Tar::default().extended(b'L', &limit).file("f", b"").refused("leads out of the archive or is none");
    Tar::default().extended(b'L', &[limit.as_slice(), b"0"].concat()).refused("extended header is too long");
    for (kind, text) in [
        (b'x', b"99 path=x\n".to_vec()),
        (b'x', b"path=x\n".to_vec()),
        (b'x', b"8 pathx\n".to_vec()),
        (b'x', record("size=-1")),
        (b'x', record("size=99999999999999999999")),
        (b'x', [record("path=a"), record("path=b")].concat()),
        (b'x', record("GNU.sparse.size=1")),
    ] {
        let fault = Tar::default().extended(kind, &text).file("f", b"1").read().unwrap_err();
        assert!(fault.contains("cannot be understood"), "{}: {fault}", String::from_utf8_lossy(&text));
    }
    Tar::default().extended(b'L', b"a").extended(b'L', b"b").file("f", b"").refused("stated twice");
}

#[test]
fn names_stay_inside() {
    for name in ["/etc/passwd", "../x", "a/../../x", "a/../b", "a\\\u{0}"] {
        let pax = record(&format!("path={name}"));
        Tar::default().extended(b'x', &pax).file("f", b"").refused("leads out of the archive or is none");
    }
    let mut not_text = Tar::default().file("f", b"");
    not_text.0[0] = 0xff;
    let mut header = Header::from_byte_slice(&not_text.0[..512]).clone();
    header.set_cksum();
    not_text.0[..512].copy_from_slice(header.as_bytes());
    not_text.refused("leads out of the archive or is none");
    let longest = "x".repeat(MAX_NAME);
    assert!(Tar::default().extended(b'L', longest.as_bytes()).file("f", b"").read().unwrap().file(&longest).is_some());
    Tar::default().extended(b'L', format!("{longest}x").as_bytes()).file("f", b"").refused("is none");
    Tar::default().file("a", b"1").file("./a", b"2").refused("a stands in it twice");
    Tar::default().file("a", b"1").header("a/", b'5', "", 0).refused("a stands in it twice");
}

#[test]
fn links_stay_inside_and_end() {
    let entries = Tar::default()
        .file("one/layer.tar", b"1")
        .header("two/layer.tar", b'2', "../one/layer.tar", 0)
        .header("hard", b'1', "one/layer.tar", 0)
        .header("a", b'2', "b", 0)
        .header("b", b'2', "a", 0)
        .header("nowhere", b'2', "c", 0)
        .read()
        .unwrap();
    let one = entries.file("one/layer.tar");
    assert!(one.is_some());
    assert_eq!(entries.file("two/layer.tar"), one);
    assert_eq!(entries.file("hard"), one);
    assert_eq!(entries.file("a"), None, "in a circle");
    assert_eq!(entries.file("nowhere"), None);
    for (name, kind, target) in [
        ("l", b'2', "/etc/passwd"),
        ("l", b'2', "../x"),
        ("d/l", b'2', "../../x"),
        ("d/l", b'2', ""),
        ("d/l", b'1', "../x"),
        ("l", b'1', "/x"),
    ] {
        Tar::default().header(name, kind, target, 0).refused("out of the archive");
    }
}

#[test]
fn what_no_image_has_is_refused() {
    for kind in [b'3', b'4', b'6', b'S', b'V', b'M'] {
        Tar::default().header("dev", kind, "", 0).refused("which no image archive holds");
    }
}

#[test]
fn sizes_that_lie_are_seen_before_anything_is_read() {
    let mut cut = Tar::default().file("f", &[1; 512]);
    cut.0.truncate(1023);
    cut.refused("f is said to have 512 bytes, and the archive ends before");
    Tar::default().header("f", b'0', "", u64::MAX - 600).refused("the archive ends before");
    let pax = record("size=18446744073709551615");
    Tar::default().extended(b'x', &pax).header("f", b'0', "", 0).refused("the archive ends before");
    let mut half = Tar::default().file("f", b"");
    half.0.extend([1; 100]);
    half.refused("in the middle of a header");
    let mut unpadded = Tar::default().file("f", b"12345");
    unpadded.0.truncate(512 + 5);
    assert!(unpadded.read().is_ok(), "only padding is missing");
}

#[test]
fn headers_are_held_to_their_checksums() {
    let mut tar = Tar::default().file("f", b"1");
    tar.0[3] ^= 1;
    tar.refused("its checksum is wrong");
    Tar::default().bytes(&[0; 512]).file("f", b"1").refused("an empty block stands in the middle");
    Tar::default().bytes(b"this is no tar at all").refused("its checksum is wrong");
}

#[test]
fn the_number_of_files_is_bounded() {
    let many = |count: usize| (0..count).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), b""));
    assert_eq!(many(MAX_ENTRIES).read().unwrap().0.len(), MAX_ENTRIES);
    many(MAX_ENTRIES + 1).refused("more than 65536 files");
}
