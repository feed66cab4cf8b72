use super::*;

fn matches(template: &str, path: &str) -> bool {
    PathTemplate::parse(template).unwrap_or_else(|e| panic!("{template}: {e}")).is_match(path)
}

fn rewritten(template: &str, rewrite: &str, path: &str) -> Option<String> {
    let template = PathTemplate::parse(template).unwrap();
    template.rewrite(path, &TemplateRewrite::parse(rewrite, &template).unwrap())
}

#[test]
fn wildcards_take_what_they_should() {
    for (template, yes, no) in [
        ("/videos/*/*/*.m4s", "/videos/123414/hls/1080p5000_00001.m4s", "/videos/1/2/3/4.m4s"),
        ("/videos/{file}", "/videos/1080p5000_00001.m4s", "/videos/a/b"),
        ("/**.mpd", "/content/123/india/dash/55/manifest.mpd", "/content/manifest.mp4"),
        ("/api/v{version}/users/{id}.json", "/api/v2/users/456.json", "/api/v2/users/.json"),
        ("/a/{rest=**}", "/a/", "/a"),
        ("/a/{rest=**}", "/a/b/c", "/b/c"),
        ("/{lang=en/*}/x", "/en/us/x", "/de/us/x"),
        ("/a.b/*", "/a.b/c", "/aXb/c"),
        ("/", "/", "/x"),
        ("/x/", "/x/", "/x"),
        ("/*", "/a%20b", "/a b"),
        ("/*", "/a", "/"),
        ("/*", "/a", "/a=b"),
    ] {
        assert!(matches(template, yes), "{template} {yes}");
        assert!(!matches(template, no), "{template} {no}");
    }
}

#[test]
fn variables_are_put_where_the_rewrite_says() {
    for (template, rewrite, path, expected) in [
        ("/{one}/{two}", "/{two}/{one}", "/cat/dog", "/dog/cat"),
        ("/videos/{language=lang/*}/*", "/{language}", "/videos/lang/en/video.m4s", "/lang/en"),
        (
            "/content/{format}/{lang}/{id}/{file}.vtt",
            "/{lang}/{format}/{file}.vtt",
            "/content/hls/en-us/12345/en_193913.vtt",
            "/en-us/hls/en_193913.vtt",
        ),
        ("/a/{rest=**}", "/x/{rest}", "/a/", "/x/"),
    ] {
        assert_eq!(rewritten(template, rewrite, path).as_deref(), Some(expected), "{template}");
    }
    assert_eq!(rewritten("/a/{b}", "/{b}", "/z"), None);
}

#[test]
fn bad_templates_are_told() {
    for (template, reason) in [
        ("", "begin with"),
        ("a", "begin with"),
        ("//a", "empty segment"),
        ("/a b", "not text of a path"),
        ("/a*", "not text of a path"),
        ("/*x/y", "at the end only"),
        ("/**/*", "no wildcard may follow"),
        ("/{a=**}/{b}", "no wildcard may follow"),
        ("/{a}/{a}", "twice"),
        ("/{1a}", "variable name"),
        ("/{}", "variable name"),
        ("/{abcdefghijklmnopq}", "variable name"),
        ("/{a", "not closed"),
        ("/a}", "never opened"),
        ("/{a{b}}", "within another"),
        ("/{a=}", "empty part"),
        ("/{a=x/}", "empty part"),
        ("/{a}/{b}/{c}/{d}/{e}/{f}", "more than 5"),
    ] {
        let error = PathTemplate::parse(template).unwrap_err();
        assert!(error.contains(reason), "{template}: {error}");
    }
    let template = PathTemplate::parse("/{a}").unwrap();
    for (rewrite, reason) in [
        ("{a}", "begin with"),
        ("/{b}", "no variable"),
        ("/{a", "not closed"),
        ("/x y", "not text"),
        ("/a?b", "not text"),
    ] {
        let error = TemplateRewrite::parse(rewrite, &template).unwrap_err();
        assert!(error.contains(reason), "{rewrite}: {error}");
    }
}
