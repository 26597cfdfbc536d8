BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0010');
CREATE TABLE architectures (
	"key" VARCHAR(16) NOT NULL, 
	json TEXT NOT NULL, 
	PRIMARY KEY ("key")
)
 WITHOUT ROWID

;
INSERT INTO "architectures" VALUES('82ecb23dd6b2703e','{"space":"letters","values":{"a":1,"b":"x"}}');
INSERT INTO "architectures" VALUES('f1712b33cc295296','{"space":"letters","values":{"a":2,"b":"y"}}');
CREATE TABLE artifacts (
	id INTEGER NOT NULL, 
	run INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	path TEXT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	created FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (run, path), 
	FOREIGN KEY(run) REFERENCES runs (id)
);
CREATE TABLE attempts (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	study INTEGER NOT NULL, 
	session VARCHAR(32) NOT NULL, 
	work TEXT NOT NULL, 
	folder TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	job TEXT NOT NULL, 
	state VARCHAR(8) NOT NULL, 
	halting BOOLEAN NOT NULL, 
	begun BOOLEAN NOT NULL, 
	worker TEXT, 
	claimed FLOAT, 
	until FLOAT, 
	said INTEGER NOT NULL, 
	FOREIGN KEY(study) REFERENCES studies (id)
);
INSERT INTO "attempts" VALUES(1,1,'00000000000000000000000000000001','{}','one/trial-1',1,'{"seed":1}','running',0,0,'node2:815',1.796057437627002716e+09,1.79605749764200949662e+09,1);
INSERT INTO "attempts" VALUES(2,1,'00000000000000000000000000000001','{}','one/trial-2',2,'{"seed":2}','waiting',0,0,NULL,NULL,NULL,0);
CREATE TABLE benches (
	id INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	config TEXT NOT NULL, 
	created FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "benches" VALUES(1,'ranking','{"strategies":["random"],"seeds":1}',1.79545162696716570859e+09);
CREATE TABLE contexts (
	id INTEGER NOT NULL, 
	json TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (json)
);
INSERT INTO "contexts" VALUES(1,'{"from": "table", "table": "scores.csv"}');
CREATE TABLE environments (
	id INTEGER NOT NULL, 
	json TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (json)
);
CREATE TABLE "epochs" (
	run INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	architecture VARCHAR(16), 
	metrics TEXT NOT NULL, 
	strengths TEXT NOT NULL, 
	seconds FLOAT NOT NULL, 
	PRIMARY KEY (run, epoch), 
	FOREIGN KEY(run) REFERENCES runs (id), 
	FOREIGN KEY(architecture) REFERENCES architectures ("key")
)
 WITHOUT ROWID

;
CREATE TABLE messages (
	attempt INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (attempt, number), 
	FOREIGN KEY(attempt) REFERENCES attempts (id)
)
 WITHOUT ROWID

;
INSERT INTO "messages" VALUES(1,1,'{"kind":"started"}');
CREATE TABLE metrics (
	run INTEGER NOT NULL, 
	step FLOAT NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	value FLOAT, 
	number VARCHAR(6) NOT NULL, 
	PRIMARY KEY (run, step, name), 
	FOREIGN KEY(run) REFERENCES runs (id)
)
 WITHOUT ROWID

;
INSERT INTO "metrics" VALUES(1,2.0,'score',0.75,'finite');
INSERT INTO "metrics" VALUES(2,2.0,'score',0.75,'finite');
CREATE TABLE queues (
	study INTEGER NOT NULL, 
	session VARCHAR(32) NOT NULL, 
	driver TEXT NOT NULL, 
	version TEXT NOT NULL, 
	lease FLOAT NOT NULL, 
	seen FLOAT, 
	PRIMARY KEY (study), 
	FOREIGN KEY(study) REFERENCES studies (id)
);
INSERT INTO "queues" VALUES(1,'00000000000000000000000000000001','node1:4711','0.1.0',60.0,1.79605743759401130675e+09);
CREATE TABLE runs (
	id INTEGER NOT NULL, 
	study INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	number INTEGER NOT NULL, 
	parent INTEGER, 
	architecture VARCHAR(16) NOT NULL, 
	identity TEXT NOT NULL, 
	budget FLOAT, 
	continues INTEGER, 
	recipe TEXT, 
	repeat INTEGER NOT NULL, 
	note TEXT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	reason TEXT, 
	reuses INTEGER, 
	attempt INTEGER NOT NULL, 
	asked_after INTEGER, 
	told INTEGER, 
	objectives TEXT, 
	violations TEXT, 
	objective FLOAT, 
	feasible BOOLEAN, 
	started FLOAT, 
	ended FLOAT, 
	seconds FLOAT, 
	environment INTEGER, 
	tries INTEGER DEFAULT 0 NOT NULL, 
	traceback TEXT, changes TEXT, derived TEXT, transfer INTEGER, 
	PRIMARY KEY (id), 
	CONSTRAINT trials_have_no_parent CHECK (kind <> 'trial' OR parent IS NULL), 
	FOREIGN KEY(study) REFERENCES studies (id), 
	FOREIGN KEY(parent) REFERENCES runs (id), 
	FOREIGN KEY(architecture) REFERENCES architectures ("key"), 
	FOREIGN KEY(environment) REFERENCES environments (id)
);
INSERT INTO "runs" VALUES(1,1,'trial',0,NULL,'82ecb23dd6b2703e','same',3.0,NULL,NULL,0,'{"role":"founder"}','complete',NULL,NULL,1,0,0,'[0.75]','[-0.5]',0.75,1,1.79545162690064764019e+09,1.7954516269010231495e+09,2.5,NULL,0,NULL,NULL,NULL,NULL);
INSERT INTO "runs" VALUES(2,1,'trial',1,NULL,'82ecb23dd6b2703e','same',3.0,NULL,NULL,0,'{}','reused','same as trial 0',0,1,1,1,'[0.75]','[-0.5]',0.75,1,1.79545162690116024014e+09,1.79545162690116024014e+09,NULL,NULL,0,NULL,NULL,NULL,NULL);
INSERT INTO "runs" VALUES(3,1,'trial',2,NULL,'f1712b33cc295296','other',9.0,NULL,NULL,0,'{}','failed','out-of-memory: too large',NULL,1,2,2,NULL,NULL,NULL,NULL,1.79545162690131616589e+09,1.79545162690141034129e+09,NULL,NULL,0,'letters.py, line 7, in build: raise ValueError(arch)',NULL,NULL,NULL);
CREATE TABLE scores (
	context INTEGER NOT NULL, 
	predictor VARCHAR(200) NOT NULL, 
	architecture VARCHAR(16) NOT NULL, 
	value FLOAT, 
	number VARCHAR(6) NOT NULL, 
	seconds FLOAT, 
	PRIMARY KEY (context, predictor, architecture), 
	FOREIGN KEY(context) REFERENCES contexts (id), 
	FOREIGN KEY(architecture) REFERENCES architectures ("key")
)
 WITHOUT ROWID

;
INSERT INTO "scores" VALUES(1,'naswot','82ecb23dd6b2703e',1.5,'finite',0.25);
INSERT INTO "scores" VALUES(1,'synflow','82ecb23dd6b2703e',NULL,'-inf',NULL);
CREATE TABLE snapshots (
	study INTEGER NOT NULL, 
	told INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	arrays BLOB NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	PRIMARY KEY (study, told), 
	FOREIGN KEY(study) REFERENCES studies (id)
);
INSERT INTO "snapshots" VALUES(1,3,'{"weights": {"__array__": ["0", [3]]}, "steps": 3}',X'38000000000000007B2230223A7B226474797065223A22463634222C227368617065223A5B335D2C22646174615F6F666673657473223A5B302C32345D7D7D200000000000000000000000000000F03F0000000000000040','bef557a0c8b90be548dcdfabbe4f8e3d5ed08c3a5576770b757675baa605ddc2');
CREATE TABLE studies (
	id INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	space TEXT NOT NULL, 
	space_name TEXT NOT NULL, 
	space_version INTEGER NOT NULL, 
	space_hash VARCHAR(16), 
	size TEXT NOT NULL, 
	strategy TEXT NOT NULL, 
	strategy_config TEXT NOT NULL, 
	evaluator TEXT NOT NULL, 
	task TEXT NOT NULL, 
	split_hash TEXT NOT NULL, 
	objectives TEXT NOT NULL, 
	constraints TEXT NOT NULL, 
	seed BIGINT NOT NULL, 
	lag INTEGER NOT NULL, 
	budget TEXT NOT NULL, 
	created FLOAT NOT NULL, 
	ordering VARCHAR(8) DEFAULT 'strict' NOT NULL, 
	early_stop TEXT, 
	bench INTEGER, 
	measured TEXT, 
	scoring TEXT, 
	warm_start TEXT, 
	supernet TEXT, 
	final_size TEXT, 
	inputs TEXT, files TEXT, 
	PRIMARY KEY (id), 
	UNIQUE (name), 
	FOREIGN KEY(bench) REFERENCES benches (id)
);
INSERT INTO "studies" VALUES(1,'one','letters','letters',1,NULL,'{"channels":4}','random','{}','{"kind":"made","settings":{"data":"none"}}','{"kind":"none","input_shape":[1],"outputs":2,"metric":"accuracy","nodes":null,"edges":null}','0','["score:max"]','["params<=5"]',4611686018427387904,1,'{"trials":3,"seconds":null,"spent":2.5}',1.7954516268995442391e+09,'strict',NULL,NULL,NULL,NULL,NULL,NULL,'{"channels":8}',NULL,NULL);
INSERT INTO "studies" VALUES(2,'ranking/random/0','letters','letters',1,NULL,'{"channels":4}','random','{}','{"kind":"made","settings":{"data":"none"}}','{"kind":"none","input_shape":[1],"outputs":2,"metric":"accuracy","nodes":null,"edges":null}','0','["score:max"]','["params<=5"]',4611686018427387904,1,'{"trials":1,"seconds":null,"spent":null}',1.79545162696783232696e+09,'strict',NULL,1,'{"ask_seconds":0.001}',NULL,NULL,NULL,NULL,NULL,NULL);
CREATE INDEX studies_bench ON studies (bench);
CREATE UNIQUE INDEX trials_number ON runs (study, number) WHERE kind = 'trial';
CREATE INDEX runs_children ON runs (parent, kind) WHERE parent IS NOT NULL;
CREATE VIEW trials AS 
        SELECT s.name AS study, r.number, r.state, r.reason, r.objective, r.feasible, r.reuses, r.budget, r.continues,
               r.seconds, r.started, r.ended, r.attempt, a.json AS architecture, r.identity, r.note, r.reuses AS source
        FROM runs r JOIN studies s ON s.id = r.study JOIN architectures a ON a.key = r.architecture
        WHERE r.kind = 'trial';
CREATE VIEW trials_flat AS 
        SELECT s.name AS study, r.number, r.state, m.step, m.name AS metric, m.value, m.number AS kind_of_number
        FROM runs r JOIN studies s ON s.id = r.study JOIN metrics m ON m.run = r.id
        WHERE r.kind = 'trial'
          AND m.step = (SELECT MAX(last.step) FROM metrics last WHERE last.run = r.id);
CREATE INDEX runs_ended ON runs (study, kind, state, feasible, budget, objective, number) WHERE ended IS NOT NULL;
CREATE INDEX runs_others ON runs (study, kind, number) WHERE kind != 'trial';
CREATE INDEX runs_several ON runs (study, kind, state, feasible, budget, json_extract(objectives, '$[1]'), json_extract(objectives, '$[2]'), objective, number, objectives) WHERE ended IS NOT NULL AND json_extract(objectives, '$[1]') IS NOT NULL;
CREATE INDEX attempts_study ON attempts (study, state);
CREATE INDEX runs_transfers ON runs (study) WHERE transfer IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('attempts',2);
COMMIT;
